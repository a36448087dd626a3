"""Fine-tuning, evaluation and prediction with `tf.compat.v1` graphs and sessions.

Each room knows those above it and none below (tests/test_layers.py holds it):

    options    what a command can be asked to do
    data       labelled examples, and how their pixels become a batch
    plan       what a run will do, before its graph is built
    graph      the graph that is trained, and where it is computed
    cache      transfer values: computed once, kept, fed
    use        a trained net in use: evaluate, predict, features, export; what a train directory says of its run
    pages      what is looked at: the report, pictures
    run        a training run, from its first step to its freeze audit
"""
