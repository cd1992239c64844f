"""What the features cost beside other ways to make them."""
