"""What residuals look like: whitened, averaged within epochs, split into the noise that they hold; summaries of many."""
