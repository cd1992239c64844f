"""Language models: load, sample, train and measure them."""
