"""An app that tests call without a network, and a variant that waits until it may answer."""

import asyncio
import threading

import httpx

from umie.extraction import Extractor
from umie.serving import Batcher, create_app


class HeldExtractor(Extractor):
    """An extractor that waits before each batch while it is held, and notes the texts of each."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.free, self.started, self.batches = threading.Event(), threading.Event(), []
        self.free.set()

    def extract_many(self, items, **options):
        items = list(items)
        if items:  # not only a check of options
            self.batches.append([item.text for item in items])
            self.started.set()
            assert self.free.wait(20)
        return super().extract_many(items, **options)

    def hold(self):
        """Make the next batch wait until ``free`` is set."""
        self.free.clear()
        self.started.clear()
        self.batches.clear()


class Served:
    """An app, which is called without a network."""

    def __init__(self, extractor, limits):
        self.batcher = Batcher(extractor, limits).start()
        self.app = create_app(self.batcher)

    def client(self):
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://umie", timeout=20)

    def send(self, method, path, **arguments):
        async def sent():
            async with self.client() as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(sent())

    def extract(self, request=None, **arguments):
        return self.send("POST", "/extract", **({"json": request} if request is not None else arguments))

    def metrics(self):
        lines = self.send("GET", "/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
