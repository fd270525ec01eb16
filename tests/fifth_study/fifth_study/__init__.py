"""A fifth study, as CONTRIBUTING tells it: what does fine-tuning on refusals alone do to borderline requests?"""
