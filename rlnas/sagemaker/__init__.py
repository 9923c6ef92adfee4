"""Searches as SageMaker training jobs.

Two halves that share a few values: what runs inside a training container (``contract``, ``hosts``,
``checkpoints``, ``publisher``, ``child``, ``training``), which needs nothing of AWS, and what starts and
watches jobs from outside (``requests``, ``checking``, ``packing``, ``storage``, ``service``, ``jobs``,
``tuning``), which needs boto3.
"""
