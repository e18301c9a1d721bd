package org.junit;

/** Stands for JUnit's. */
public @interface Test {}
