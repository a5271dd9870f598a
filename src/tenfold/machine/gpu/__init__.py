"""Hardware-scheduled chips: tiles, waves and rooflines."""
