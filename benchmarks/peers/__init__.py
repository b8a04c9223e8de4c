"""Ours beside other indexes, in one run: the same vectors, the same queries, the same server, one thread each.

    python -m benchmarks.peers --data Gist512CIFAR10.mat

Every peer is measured in a process of its own, so that it may live in an environment of its own (NearPy needs
numpy 1) and nothing of one is left to the next. Read task (what is asked), peer (what a peer is), timing (how it is
measured) and child (the process) first; then a file for each peer, catalogue lists them; then figures, targets,
tables and pictures.

What is the same for all: vectors are of unit length about the mean of the training items, so that cosine, inner
product and L2 give the same order, and hyperplanes through the origin cut them. Whoever only finds candidates ranks
them by cosine. In the processes of peers all libraries are held to one thread.
"""
