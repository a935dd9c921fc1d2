"""What configs and commands of pulsars have in common: how they are read, fitted noise, grids, figures."""
