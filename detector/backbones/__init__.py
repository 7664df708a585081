"""Networks from images to pyramid features: ResNets, their norms and deformable convolutions, FPN."""
