"""Config files, commands and reports. Nothing is imported here: `jaxsci --help` must stay quick."""
