"""CIFAR-10 and CIFAR-100 as their site offers them: Python pickles, and a binary form."""

from pipeline.data.sources.cifar.source import Cifar

__all__ = ["Cifar"]
