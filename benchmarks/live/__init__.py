"""A continuous run: items arrive, change and go, queries are asked all the time, and generations replace each other.

python -m benchmarks.live --data Gist512CIFAR10.mat

The processes are those of a deployment: an embedded server, hash workers, a trainer, a producer, query clients. One
more verifies the index at random moments. All of them share the machine's cores.

Rules
1. Nothing is timed by whoever is timed against: the watch looks at the server twenty times a second and says what was
   going on; each query is then judged by what was going on when it began.
2. Re-indexing is compared with calm within the same kind of load and the same run, in turns. What a verification
   overlaps is left out of the comparison of times, since it takes a core; of nothing else.
3. The producer keeps a record of what it sent, in the order in which it was accepted; at the end each item of the
   index is held against it.
"""
