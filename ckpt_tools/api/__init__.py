"""The Python face: the commands as functions, with the same names and the same options. `import ckpt_tools as ck` has
all of it; nothing here is imported before it is used.

    planning     make_plan                                  needs neither numpy nor TensorFlow
    training     finetune, dry_run, find_learning_rate
    using        evaluate, features, export, predict, open_classifier
    pictures     draw_images, draw_confusion, ...           what the reports show, as pictures
    notebook     the face of events in a notebook
"""
