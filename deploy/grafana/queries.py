"""What several dashboards ask, and in which unit they tell it."""

IMAGES_A_SECOND = "suffix: images/s"
OURS = 'instance=~"$instance"'
MEAN_BATCH = (
    f"sum(rate(purigate_batch_size_sum{{{OURS}}}[$rate])) / sum(rate(purigate_batch_size_count{{{OURS}}}[$rate]))"
)
