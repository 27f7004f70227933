"""Models of other libraries run by the kernels of this one. Nothing here imports those libraries until it is called."""
