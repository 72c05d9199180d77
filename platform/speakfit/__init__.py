"""What every part shares: settings, metrics, clock, target, engine and emulator."""
