@file:Suppress("PackageDirectoryMismatch")

package org.gradle.api.plugins

interface ExtensionAware
