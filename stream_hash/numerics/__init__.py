"""The mathematics: numpy, scipy and scikit-learn only; no Redis, no RQ, no files.

What the index uses: codes, hyperplanes, stored, embedded, rounding, network, model, validation, probing, ranking.

What learns, as scikit-learn estimators: sign_bits, lsh, rotation (ITQ), labels, graph, smoothing, code_words,
directions, class_book, feature_maps, learners, starts, rest_bits, whole_numbers, grh_parameters, grh, tutorial; then
selection, fused, asymmetric and bit_health.

What turns the one into the other: learned (a GRH into a model), gate (whether it goes live), drift and prequential
(when to learn again).

What measures, in memory: evaluation, protocol, methods, bucket_table, comparison, summary.
"""
