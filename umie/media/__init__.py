"""Reading sound and video: mono samples, and some frames of a clip, or a clear error."""

from umie.media.clip import Clip, ClipSource, open_clip
from umie.media.digest import media_digest
from umie.media.sound import Sound, SoundSource, open_sound

__all__ = ["Clip", "ClipSource", "Sound", "SoundSource", "media_digest", "open_clip", "open_sound"]
