"""What engines that speak the Agent Client Protocol have in common. Nothing here may know one of them by name."""
