"""What several dashboards ask."""

OURS = 'instance=~"$instance"'
MEAN_BATCH = (
    f"sum(rate(purigate_batch_size_sum{{{OURS}}}[$rate])) / sum(rate(purigate_batch_size_count{{{OURS}}}[$rate]))"
)
