"""The images: where they come from, what augmentation makes of them, and the batches a run reads."""
