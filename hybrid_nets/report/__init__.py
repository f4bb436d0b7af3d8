"""One page to look through what ``hybrid-nets segment`` made of a cohort."""
