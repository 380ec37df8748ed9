"""An HTTP server for a saved variant: dynamic batches, limits on what a client may send, metrics."""

from umie.errors import import_extra

for _library in ("fastapi", "uvicorn", "prometheus_client"):
    import_extra(_library, "serve", "umie serve")

from umie.serving.app import create_app  # noqa: E402 # after the check that what it needs is installed
from umie.serving.batching import Batcher  # noqa: E402
from umie.serving.limits import Limits  # noqa: E402
from umie.serving.server import bind, serve  # noqa: E402

__all__ = ["Batcher", "Limits", "bind", "create_app", "serve"]
