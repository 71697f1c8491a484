"""The integrations, in the engines that they are for."""
