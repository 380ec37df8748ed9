"""A model around just a CLIP encoder, to be saved and loaded."""

from transformers import PreTrainedConfig, PreTrainedModel

from umie.encoders import registry


class Holder(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.encoder = registry.construct("clip", config.encoder)
        self.post_init()

    def _init_weights(self, module):
        pass
