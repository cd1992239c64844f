"""The built-in world: its stories, and the small models that read and tell them."""
