"""What a router was configured with: agents, aliases, fallbacks and prices. Never changed, only replaced."""
