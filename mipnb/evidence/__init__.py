"""The trial of neuron paths: does silencing, or keeping, the located neurons do what other neurons do not?"""
