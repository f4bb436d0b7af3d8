"""Building blocks shared by the networks. Blocks never import networks."""
