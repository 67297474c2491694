"""One fine-tune of an ImageNet CNN on mel spectrograms; knows nothing of a search."""
