plugins {
    alias(libs.plugins.android.application) // it compiles Kotlin itself
}

android {
    namespace = "dev.edgecv.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "dev.edgecv.demo"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        ndk { abiFilters += listOf("arm64-v8a", "armeabi-v7a", "x86_64") }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    androidResources { noCompress += "tflite" } // models are mapped from the APK
}

dependencies {
    implementation(project(":core"))
    implementation(libs.serialization.json)
    // 16 KB pages need LiteRT 1.4 or later; its classes keep the package org.tensorflow.lite.
    implementation(libs.litert)
    implementation(libs.litert.gpu)
    implementation(libs.litert.gpu.api)
}
