"""Users, load shapes and thresholds for Locust; the images are drawn here, so that no data set is needed."""
