"""What `jaxsci run` does with a config of curve fits, step by step.

A config becomes members, which are checked or fitted, recorded and drawn. `curvefit.task` puts the steps together; they
stand apart from it because they are private to this science, and a task is what others see.
"""
