package dev.edgecv.core

/** What was given cannot be used: a model, its sidecar, a photo, a request. The message is one sentence for people. */
open class InputError(message: String, cause: Throwable? = null) : Exception(message, cause)

/** The device lacks a delegate, or the delegate refuses a model that another may run. */
class DelegateError(message: String, cause: Throwable? = null) : InputError(message, cause)

/** The first line of what went wrong, for a sentence that goes on after a colon. */
fun Throwable.reason(): String =
    (message ?: javaClass.simpleName).lineSequence().map { it.trim() }.firstOrNull { it.isNotEmpty() }?.take(200)
        ?: javaClass.simpleName
