"""What makes a text a usable caption, and how one is asked for."""
