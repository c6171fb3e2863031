"""What a user would pick instead to serve the same classifier: each a server on its own, with `--port`.

They share with the gateway what is not theirs to be judged by: the decoder of images, the content of an answer, and
with `--network engine` the engine, so the network, its precision and its preparation. With `--network torch` they run
the network as a user who does not have our engine would. PURIGATE_BUNDLE, PURIGATE_DEVICE and the like say what they
serve. Threads, processes, batches and HTTP are their own.
"""
