"""The parts of the family `torchvision`: classifiers, detectors, segmenters."""
