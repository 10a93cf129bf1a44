// The native kernel of the residual MLP.

extern "C" int stresstest_version() { return 1; }
