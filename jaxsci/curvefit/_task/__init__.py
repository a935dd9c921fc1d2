"""What `jaxsci run` does with a config of curve fits, step by step; `curvefit.task` puts the steps together."""
