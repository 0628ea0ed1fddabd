"""A trained network as files for other programs: ONNX, torch.export, a model repository, an app."""
