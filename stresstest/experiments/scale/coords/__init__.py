"""The coordinate check of `stresstest scale --coords`: does a layer's output move more in a wider model?"""
