"""The default architecture: the encoder and decoder of vae.py."""

import vae
from toolkit.architectures.row import Architecture


def encoder(config):
    return vae.Encoder(config.image_size, config.channels, config.max_filters, config.latent_dims, config.num_classes)


def decoder(config):
    return vae.Decoder(config.image_size, config.outputs, config.max_filters, config.latent_dims, config.num_classes)


CONV = Architecture("conv", "convolutions, upsampling decoder", encoder, decoder, 64, 4, 8, 8)
