"""A process that speaks texts through the library espeak-ng, whose crash or hang does not end umie.

It is a script that imports nothing of umie, so that it starts in milliseconds: ``espeak.py LIBRARY DATA VOICE RATE``.
Its first line is ``{"rate": samples per second}``; ``{"voices": [...]}`` if the voice is none of these; ``{}`` if the
library has no data. It reads a text, as JSON, from each line, and answers with a line, ``{"events": [[position, length,
milliseconds], ...], "bytes": n}``, and n bytes of 16-bit samples.

Source: the C API of espeak-ng 1.52, ``speak_lib.h``.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from itertools import takewhile
from typing import Any

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
_DO_NOT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: without its data, the library would end the process
_RATE = 1  # espeakRATE
_UTF8 = 1  # espeakCHARS_UTF8
_BY_CHARACTERS = 1  # POS_CHARACTER
_WORD = 1  # espeakEVENT_WORD
_MAX_BYTES = 3_601 * 22_050 * 2  # of the speech of a text: more than an hour, which no Sound may have; then it stops


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # of characters, from 1
        ("length", ctypes.c_int),  # characters
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),  # a priority of one byte, then the name
        ("identifier", ctypes.c_char_p),
        ("properties", ctypes.c_ubyte * 4),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def serve(library_path: str, data: str, voice: str, words_per_minute: int) -> None:
    """Answer the lines of standard input until it ends."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints is no answer
    spoken = bytearray()
    events: list[tuple[int, int, int]] = []

    def collect(samples: Any, number: int, found: Any) -> int:
        if samples and number:
            spoken.extend(ctypes.string_at(samples, 2 * number))
        index = 0
        while found[index].type:
            if found[index].type == _WORD:
                event = found[index]
                events.append((event.text_position - 1, event.length, event.audio_position))
            index += 1
        return int(len(spoken) > _MAX_BYTES)  # 1 stops the library

    def answer(content: dict[str, Any], samples: bytes | bytearray = b"") -> None:
        output.write(json.dumps(content).encode() + b"\n" + samples)
        output.flush()

    callback = _Callback(collect)  # a name, so that it is not collected as garbage while the library may call it
    library = ctypes.CDLL(library_path)
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    size, position = ctypes.c_size_t, ctypes.c_uint
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, size, position, ctypes.c_int, position, position, ctypes.c_void_p, ctypes.c_void_p
    ]  # fmt: skip
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data) or None, _DO_NOT_EXIT)
    if rate <= 0:
        return answer({})
    library.espeak_SetSynthCallback(callback)
    as_language = ctypes.byref(_Voice(languages=os.fsencode(voice)))  # en-gb is the language of a voice named en
    if library.espeak_SetVoiceByName(os.fsencode(voice)) and library.espeak_SetVoiceByProperties(as_language):
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        voices = library.espeak_ListVoices(None)
        names = (found.contents.languages[1:].decode() for found in takewhile(bool, voices))
        return answer({"voices": sorted(set(names))})
    library.espeak_SetParameter(_RATE, words_per_minute, 0)
    answer({"rate": rate})
    for line in sys.stdin.buffer:
        text = json.loads(line).encode()
        spoken.clear()
        events.clear()
        library.espeak_Synth(text, len(text) + 1, 0, _BY_CHARACTERS, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        answer({"events": events, "bytes": len(spoken)}, spoken)
    return None


if __name__ == "__main__":
    _, given_library, given_data, given_voice, given_rate = sys.argv
    serve(given_library, given_data, given_voice, int(given_rate))
