"""Software-scheduled chips: tile programs and their exact time."""
