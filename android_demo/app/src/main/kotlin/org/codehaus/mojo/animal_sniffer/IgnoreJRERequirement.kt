package org.codehaus.mojo.animal_sniffer

/** Marks a function that asks for the system's version before it calls newer methods; Animal Sniffer knows the annotation by this name. */
@Target(AnnotationTarget.FUNCTION)
@Retention(AnnotationRetention.BINARY)
annotation class IgnoreJRERequirement
