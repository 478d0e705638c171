"""From images to labels to numbers: inference, exact counts, scores, intervals."""
