"""What `jaxsci run` does with a config of particles and games: names (`kinds`), tables (`config`, `references`),
running (`work`), outcomes and their numbers (`outcomes`), and pictures (`figures`)."""
