"""What `jaxsci run` does with a config of a sky: reads it (`config`) and draws what was found (`figures`)."""
