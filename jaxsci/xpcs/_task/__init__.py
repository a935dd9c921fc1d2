"""What `jaxsci run` and `jaxsci xpcs` do with measurements: names (`kinds`), tables (`config`, `detector`), running
(`work`), outcomes and their numbers (`outcomes`), pictures (`figures`), and what the commands do (`commands`)."""
