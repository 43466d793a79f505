"""The networks of the paper as plain modules, without gates."""

from vibnet.zoo.networks import VGG, LeNet5Caffe, LeNet300100, ResidualCNN

__all__ = ["VGG", "LeNet5Caffe", "LeNet300100", "ResidualCNN"]
